// One of N numbers of W bits, by its place. Latency 1.
module choice #(
    parameter N = 4, W = 8, WP = N > 1 ? $clog2(N) : 1
) (
    input  clk, enable,
    input  [WP-1:0] place,
    input  [N*W-1:0] x,
    output reg [W-1:0] y
);
    always @(posedge clk) if (enable) y <= x[place*W+:W];
endmodule
