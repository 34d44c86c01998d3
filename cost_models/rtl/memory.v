// D words of W bits, read and written at one clock edge each: what is read shows behind the edge, and stays.
// STYLE: 1 LUT memory, 2 block RAM, 3 UltraRAM. A word is not read while it is written; zeros at first.
module memory #(
    parameter D = 16, W = 8, STYLE = 1, WA = $clog2(D)
) (
    input  clk, read, write,
    input  [WA-1:0] read_address, write_address,
    input  [W-1:0] x,
    output reg [W-1:0] y
);
    integer i;
    generate
        if (STYLE == 1) begin : lut
            (* ram_style = "distributed", no_rw_check *) reg [W-1:0] words [0:D-1];
`ifndef SYNTHESIS
            initial for (i = 0; i < D; i = i + 1) words[i] = 0;
`endif
            always @(posedge clk) begin
                if (write) words[write_address] <= x;
                if (read) y <= words[read_address];
            end
        end else if (STYLE == 2) begin : block
            (* ram_style = "block", no_rw_check *) reg [W-1:0] words [0:D-1];
`ifndef SYNTHESIS
            initial for (i = 0; i < D; i = i + 1) words[i] = 0;
`endif
            always @(posedge clk) begin
                if (write) words[write_address] <= x;
                if (read) y <= words[read_address];
            end
        end else begin : ultra
            (* ram_style = "ultra", no_rw_check *) reg [W-1:0] words [0:D-1];
`ifndef SYNTHESIS
            initial for (i = 0; i < D; i = i + 1) words[i] = 0;
`endif
            always @(posedge clk) begin
                if (write) words[write_address] <= x;
                if (read) y <= words[read_address];
            end
        end
    endgenerate
endmodule
