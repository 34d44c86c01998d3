// Holds the newest rows of an image of M rows of N pixels, C words of W bits a pixel, and reads the words under a
// K x K window, stride 1, for each of its places F times: once for each fold of the outputs.
// DEPTHWISE: the C words of a pixel are separate; each is read over the whole window before the next (F is not used).
// `y_valid` says that the next word can be read; it shows in y behind the edge at which `read` is 1.
// A power of two of words, so that addresses wrap by themselves. STYLE: 1 LUT memory, 2 block RAM, 3 UltraRAM.
module window_buffer #(
    parameter K = 3, N = 8, M = 8, C = 1, F = 4, W = 16, DEPTHWISE = 0, STYLE = 1
) (
    input  clk, reset, x_valid, read,
    input  [W-1:0] x,
    output x_ready, y_valid,
    output [W-1:0] y
);
    localparam SPAN = ((K - 1) * N + K) * C;            // words from the window's first to its last
    localparam D = SPAN < 2 ? 2 : 1 << $clog2(SPAN), WA = $clog2(D), WL = WA + 1;
    // How far the read address moves: to the next word, the window's next row, its next fold or place, the next row.
    localparam [WA-1:0] ALONG = DEPTHWISE ? C : 1;
    localparam [WA-1:0] DOWN = DEPTHWISE ? (N - K + 1) * C : (N - K) * C + 1;
    localparam [WA-1:0] AGAIN = DEPTHWISE ? C + 1 - SPAN : 1 - SPAN;
    localparam [WA-1:0] NEXT = DEPTHWISE ? C + 1 - SPAN : 1 - SPAN + C;
    localparam [WA-1:0] BELOW = 1 - SPAN + K * C;
    wire [WA-1:0] write_address;
    reg  [WA-1:0] read_address;
    reg  [WL-1:0] level;                                // words that are there, from the window's first on
    wire row_ends, window_ends, place_ends, image_row_ends, image_ends;
    wire write = x_valid & x_ready;
    wire step = read & y_valid;
    assign x_ready = ~level[WA];
    assign y_valid = level >= SPAN;
    wire ends_row = step & row_ends;
    wire ends_window = ends_row & window_ends;
    wire ends_place = ends_window & place_ends;
    wire ends_image_row = ends_place & image_row_ends;
    wire ends_image = ends_image_row & image_ends;
    counted #(.N(DEPTHWISE ? K : K * C)) along (.clk(clk), .reset(reset), .step(step), .last(row_ends));
    counted #(.N(K)) down (.clk(clk), .reset(reset), .step(ends_row), .last(window_ends));
    counted #(.N(DEPTHWISE ? C : F)) folds (.clk(clk), .reset(reset), .step(ends_window), .last(place_ends));
    counted #(.N(N - K + 1)) places (.clk(clk), .reset(reset), .step(ends_place), .last(image_row_ends));
    counted #(.N(M - K + 1)) rows (.clk(clk), .reset(reset), .step(ends_image_row), .last(image_ends));
    wire [WA-1:0] by = ~row_ends ? ALONG
        : ~window_ends ? DOWN
        : ~place_ends ? AGAIN
        : ~image_row_ends ? NEXT
        : ~image_ends ? BELOW
        : 1;
    wire [WL-1:0] released = ~ends_place ? 0
        : ~image_row_ends ? C
        : ~image_ends ? K * C
        : SPAN;
    cycle #(.D(D)) writing (.clk(clk), .reset(reset), .enable(write), .y(write_address));
    always @(posedge clk)
        if (reset) begin
            read_address <= 0;
            level <= 0;
        end else begin
            if (step) read_address <= read_address + by;
            level <= level - released + write;
        end
    memory #(.D(D), .W(W), .STYLE(STYLE)) words (
        .clk(clk), .read(step), .read_address(read_address), .y(y),
        .write(write), .write_address(write_address), .x(x)
    );
endmodule
