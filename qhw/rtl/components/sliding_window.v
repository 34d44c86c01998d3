// Holds the newest rows of an image of M rows of N pixels, C words a pixel, and reads the words under a window of
// KM x KN pixels, DM and DN apart, for each of OM x ON places, SM and SN apart. At a place: for each of G groups of the
// words, F times (once for each fold of the outputs), pixel by pixel, the words of the group.
// `window_buffer` with strides, dilation and groups. `y_valid`: the next word can be read; it shows in y one edge on.
// EARLY: `x_ready` and `y_valid` are registers. By how much the level falls, and whether it rises by one, chooses among
// comparisons with constants that are made at the same time.
module sliding_window #(
    parameter M = 8, N = 8, C = 1, KM = 3, KN = 3, SM = 1, SN = 1, DM = 1, DN = 1, OM = 6, ON = 6, G = 1, F = 1,
    parameter W = 8, D = 32, STYLE = 1, EARLY = 0
) (
    input  clk, reset, x_valid, read,
    input  [W-1:0] x,
    output x_ready, y_valid,
    output [W-1:0] y
);
    localparam CG = C / G;
    localparam SPAN = ((KM - 1) * DM * N + (KN - 1) * DN + 1) * C;  // words from the window's first to its last
    localparam REACH = ((KM - 1) * DM * N + (KN - 1) * DN) * C + CG - 1;
    localparam SIDE = SN * C, BELOW = SM * N * C - (ON - 1) * SN * C;
    localparam REST = M * N * C - (OM - 1) * SM * N * C - (ON - 1) * SN * C;
    localparam WA = $clog2(D), WL = $clog2((M * N * C > D ? M * N * C : D) + 1) + 1;
    // How far the read address moves: within a group, to the window's next pixel, its next row, its next reading, the
    // next group, the next place, the next row of places, the next image.
    localparam [WA-1:0] TO_PIXEL = DN * C - CG + 1, TO_ROW = (DM * N - (KN - 1) * DN) * C - CG + 1, AGAIN = -REACH;
    localparam [WA-1:0] TO_GROUP = CG - REACH, TO_PLACE = SIDE - (G - 1) * CG - REACH;
    localparam [WA-1:0] TO_BELOW = BELOW - (G - 1) * CG - REACH, TO_IMAGE = REST - (G - 1) * CG - REACH;
    wire [WA-1:0] write_address;
    reg  [WA-1:0] read_address;
    reg  signed [WL-1:0] level;     // words from the window's first on; below 0: words that are passed over
    wire signed [WL-1:0] next_level;
    wire write = x_valid & x_ready, step = read & y_valid;
    wire words_end, row_ends, window_ends, folds_end, place_ends, line_ends, image_ends;
    wire ends_row = step & words_end & row_ends, ends_window = ends_row & window_ends;
    wire ends_folds = ends_window & folds_end, ends_place = ends_folds & place_ends, ends_line = ends_place & line_ends;
    counted #(.N(CG)) words (.clk(clk), .reset(reset), .step(step), .last(words_end));
    counted #(.N(KN)) along (.clk(clk), .reset(reset), .step(step & words_end), .last(row_ends));
    counted #(.N(KM)) down (.clk(clk), .reset(reset), .step(ends_row), .last(window_ends));
    counted #(.N(F)) folds (.clk(clk), .reset(reset), .step(ends_window), .last(folds_end));
    counted #(.N(G)) groups (.clk(clk), .reset(reset), .step(ends_folds), .last(place_ends));
    counted #(.N(ON)) places (.clk(clk), .reset(reset), .step(ends_place), .last(line_ends));
    counted #(.N(OM)) lines (.clk(clk), .reset(reset), .step(ends_line), .last(image_ends));
    wire [WA-1:0] by = ~words_end ? 1
        : ~row_ends ? TO_PIXEL
        : ~window_ends ? TO_ROW
        : ~folds_end ? AGAIN
        : ~place_ends ? TO_GROUP
        : ~line_ends ? TO_PLACE
        : ~image_ends ? TO_BELOW
        : TO_IMAGE;
    wire signed [WL-1:0] released = ~ends_place ? 0
        : ~line_ends ? SIDE
        : ~image_ends ? BELOW
        : REST;
    generate
        if (EARLY) begin : early
            reg full, there;
            wire [7:0] spans;
            wire [8*WL-1:0] moves;
            genvar i;
            for (i = 0; i < 4; i = i + 1) begin : cases
                // The level is never above D.
                localparam FALL = i == 0 ? 0 : i == 1 ? SIDE : i == 2 ? BELOW : REST, LEAST = SPAN + FALL;
                wire reached = i == 0 ? there : LEAST > D ? 1'b0 : level >= $signed(LEAST);
                wire nearly = LEAST > D + 1 ? 1'b0 : level == $signed(LEAST - 1);
                assign spans[2*i+:2] = {reached | nearly, reached};
                localparam signed [WL-1:0] KEPT = -FALL, RISEN = 1 - FALL;
                assign moves[2*i*WL+:2*WL] = {RISEN, KEPT};
            end
            wire [1:0] falls = ~ends_place ? 2'd0 : ~line_ends ? 2'd1 : ~image_ends ? 2'd2 : 2'd3;
            wire fills = falls == 0 & (full | (write & level == $signed(D - 1)));
            always @(posedge clk)
                if (reset) begin
                    full <= 1'b0;
                    there <= 1'b0;
                end else begin
                    full <= fills;
                    there <= spans[{falls, write}];
                end
            assign x_ready = ~full;
            assign y_valid = there;
            assign next_level = level + $signed(moves[{falls, write}*WL+:WL]);
        end else begin : late
            assign x_ready = level < $signed(D);
            assign y_valid = level >= $signed(SPAN);
            assign next_level = level - released + $signed({1'b0, write});
        end
    endgenerate
    cycle #(.D(D)) writing (.clk(clk), .reset(reset), .enable(write), .y(write_address));
    always @(posedge clk)
        if (reset) begin
            read_address <= 0;
            level <= 0;
        end else begin
            if (step) read_address <= read_address + by;
            level <= next_level;
        end
    memory #(.D(D), .W(W), .STYLE(STYLE)) rows (
        .clk(clk), .read(step), .read_address(read_address), .y(y),
        .write(write), .write_address(write_address), .x(x)
    );
endmodule
