// The last K x K pixels of an image that comes row by row: N pixels of W bits a row. Latency 1.
// Lane r*K + c of the window came r rows and c pixels ago.
// STYLE: 0 shift registers, 1 LUT memory, 2 block RAM, 3 UltraRAM (these three hold all rows in one word a column).
module line_buffer #(
    parameter K = 3, W = 8, N = 32, STYLE = 1
) (
    input  clk, enable,
    input  [W-1:0] x,
    output [K*K*W-1:0] window
);
    wire [K*W-1:0] heads;       // of each row, the pixel that came last
    wire [K*W-1:0] tails;       // of each row, the pixel that leaves the window next
    reg  [W-1:0] x_1;
    always @(posedge clk) if (enable) x_1 <= x;
    assign heads[W-1:0] = x_1;
    genvar r, c;
    generate
        for (r = 0; r < K; r = r + 1) begin : row
            assign window[r*K*W+:W] = heads[r*W+:W];
            for (c = 1; c < K; c = c + 1) begin : column
                reg [W-1:0] pixel;
                always @(posedge clk) if (enable) pixel <= window[(r*K+c-1)*W+:W];
                assign window[(r*K+c)*W+:W] = pixel;
            end
            assign tails[r*W+:W] = window[(r*K+K-1)*W+:W];
        end
        if (STYLE == 0) begin : shifted
            for (r = 1; r < K; r = r + 1) begin : line
                shift_register #(.D(N-K+1), .W(W)) rest (
                    .clk(clk), .shift(enable), .place(N-K), .x(tails[(r-1)*W+:W]), .y(heads[r*W+:W])
                );
            end
        end else begin : stored
            // What is read in a column is written back one step later, each pixel in the place of the row before.
            wire [$clog2(N)-1:0] column;
            reg  [$clog2(N)-1:0] column_1;
            cycle #(.D(N)) columns (.clk(clk), .reset(1'b0), .enable(enable), .y(column));
            always @(posedge clk) if (enable) column_1 <= column;
            memory #(.D(N), .W((K-1)*W), .STYLE(STYLE)) lines (
                .clk(clk), .read(enable), .read_address(column), .y(heads[K*W-1:W]),
                .write(enable), .write_address(column_1), .x(heads[(K-1)*W-1:0])
            );
        end
    endgenerate
endmodule
