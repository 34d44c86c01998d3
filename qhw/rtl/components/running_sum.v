// The sum of the integers since `first`, in A bits. Latency 2.
module running_sum #(
    parameter W = 8, S = 1, A = 12
) (
    input  clk, enable, first,
    input  [W-1:0] x,
    output [A-1:0] y
);
    reg  [W-1:0] x_1;
    reg  first_1;
    always @(posedge clk) if (enable) begin
        x_1 <= x;
        first_1 <= first;
    end
    accumulate #(.W(W), .S(S), .A(A)) total (.clk(clk), .enable(enable), .first(first_1), .x(x_1), .sum(y));
endmodule
