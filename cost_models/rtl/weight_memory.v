// D words of W bits: written while weights are loaded, else read; zeros until then, as the device starts. Latency 1.
// STYLE: 1 LUT memory (one port), 2 block RAM, 3 UltraRAM (a port for each).
module weight_memory #(
    parameter D = 64, W = 8, STYLE = 1, WA = $clog2(D)
) (
    input  clk, read, write,
    input  [WA-1:0] read_address, write_address,
    input  [W-1:0] x,
    output [W-1:0] y
);
    wire load = read & ~write;
    generate
        if (STYLE == 1) begin : lut
            reg  [W-1:0] last;
            wire [W-1:0] word;
            one_port_memory #(.D(D), .W(W)) words (
                .clk(clk), .write(write), .address(write ? write_address : read_address), .bank(read_address),
                .x(x), .y(word)
            );
            always @(posedge clk) if (load) last <= word;
            assign y = last;
        end else begin : ports
            memory #(.D(D), .W(W), .STYLE(STYLE)) words (
                .clk(clk), .read(load), .read_address(read_address), .y(y),
                .write(write), .write_address(write_address), .x(x)
            );
        end
    endgenerate
endmodule

// LUT memory that shows the word at its address; banks of 256 words, the depth of one cell.
// `bank` is the address too, and only read by: without the writer's, what is behind the memory stays small.
module one_port_memory #(
    parameter D = 64, W = 8, WA = D > 1 ? $clog2(D) : 1
) (
    input  clk, write,
    input  [WA-1:0] address, bank,
    input  [W-1:0] x,
    output [W-1:0] y
);
    localparam HALF = 1 << (WA - 1), WB = D > HALF + 1 ? $clog2(D - HALF) : 1;
    generate
        if (D <= 256) begin : whole
            (* ram_style = "distributed" *) reg [W-1:0] words [0:D-1];
`ifndef SYNTHESIS
            integer i;
            initial for (i = 0; i < D; i = i + 1) words[i] = 0;
`endif
            always @(posedge clk) if (write) words[address] <= x;
            assign y = words[address];
        end else begin : banks
            wire [W-1:0] low, high;
            wire upper = address[WA-1];
            one_port_memory #(.D(HALF), .W(W)) first (
                .clk(clk), .write(write & ~upper), .address(address[WA-2:0]), .bank(bank[WA-2:0]), .x(x), .y(low)
            );
            one_port_memory #(.D(D - HALF), .W(W)) second (
                .clk(clk), .write(write & upper), .address(address[WB-1:0]), .bank(bank[WB-1:0]), .x(x), .y(high)
            );
            assign y = bank[WA-1] ? high : low;
        end
    endgenerate
endmodule
