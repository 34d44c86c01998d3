// One of D constants of W bits, by its place. Latency 1. STYLE: 1 LUTs, 2 block RAM.
module lookup #(
    parameter D = 16, W = 8, STYLE = 1, FILE = "", WA = D > 1 ? $clog2(D) : 1
) (
    input  clk, enable,
    input  [WA-1:0] x,
    output [W-1:0] y
);
    rom #(.D(D), .W(W), .STYLE(STYLE), .FILE(FILE)) words (.clk(clk), .read(enable), .address(x), .y(y));
endmodule
