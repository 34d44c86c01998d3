// The sum of N integers of W bits: a balanced tree of adders, a register in front and behind each. Latency 1 + clog2(N).
module adder_tree #(
    parameter N = 8, W = 8, S = 1
) (
    input  clk, enable,
    input  [N*W-1:0] x,
    output [W+$clog2(N)-1:0] y
);
    reg [N*W-1:0] x_1;
    always @(posedge clk) if (enable) x_1 <= x;
    sum_tree #(.N(N), .W(W), .S(S)) tree (.clk(clk), .enable(enable), .x(x_1), .sum(y));
endmodule
