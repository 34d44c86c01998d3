// D registers in a row.
module delay #(
    parameter W = 1, D = 1
) (
    input  clk, enable,
    input  [W-1:0] x,
    output [W-1:0] y
);
    generate
        if (D == 0) begin : none
            assign y = x;
        end else begin : some
            reg [W-1:0] last;
            wire [W-1:0] previous;
            delay #(.W(W), .D(D-1)) earlier (.clk(clk), .enable(enable), .x(x), .y(previous));
            always @(posedge clk) if (enable) last <= previous;
            assign y = last;
        end
    endgenerate
endmodule
