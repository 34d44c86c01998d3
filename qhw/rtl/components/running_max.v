// The largest of the integers since `first`. Latency 2.
module running_max #(
    parameter W = 8, S = 1
) (
    input  clk, enable, first,
    input  [W-1:0] x,
    output reg [W-1:0] y
);
    reg  [W-1:0] x_1;
    reg  first_1;
    wire larger;
    at_least #(.A(W), .S(S)) compare (.x(x_1), .y(y), .result(larger));
    always @(posedge clk) if (enable) begin
        x_1 <= x;
        first_1 <= first;
        if (first_1 | larger) y <= x_1;
    end
endmodule
