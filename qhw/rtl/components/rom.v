// D constant words of W bits, from a file of hexadecimal numbers. Latency 1. STYLE: 1 LUTs, 2 block RAM.
module rom #(
    parameter D = 16, W = 8, STYLE = 1, FILE = "", WA = D > 1 ? $clog2(D) : 1
) (
    input  clk, read,
    input  [WA-1:0] address,
    output reg [W-1:0] y
);
    generate
        if (STYLE == 2) begin : block
            (* rom_style = "block", ram_style = "block" *) reg [W-1:0] words [0:D-1];
            initial $readmemh(FILE, words);
            always @(posedge clk) if (read) y <= words[address];
        end else begin : lut
            (* rom_style = "logic", ram_style = "logic" *) reg [W-1:0] words [0:D-1];
            initial $readmemh(FILE, words);
            always @(posedge clk) if (read) y <= words[address];
        end
    endgenerate
endmodule
