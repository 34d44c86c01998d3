// D words of W bits that are written while weights are loaded, else read. Latency 1. STYLE: 1 LUTs, 2 block RAM.
// One word alone is a register, and there all the time.
module loaded_memory #(
    parameter D = 16, W = 8, STYLE = 1, WA = D > 1 ? $clog2(D) : 1
) (
    input  clk, read, write,
    input  [WA-1:0] address, target,
    input  [W-1:0] x,
    output [W-1:0] y
);
    generate
        if (D == 1) begin : one
            reg [W-1:0] word;
            always @(posedge clk) if (write) word <= x;
            assign y = word;
        end else begin : several
            weight_memory #(.D(D), .W(W), .STYLE(STYLE)) words (
                .clk(clk), .read(read), .write(write), .read_address(address), .write_address(target), .x(x), .y(y)
            );
        end
    endgenerate
endmodule
