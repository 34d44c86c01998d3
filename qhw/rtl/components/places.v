// Walks over R rows of N pixels of C words, and says whether a word lies within a part: from the R0-th row on, R1 rows
// RS apart, and likewise of the pixels and the words.
module places #(
    parameter R = 8, N = 8, C = 1, R0 = 0, R1 = 8, RS = 1, N0 = 0, N1 = 8, NS = 1, C0 = 0, C1 = 1, CS = 1
) (
    input  clk, reset, step,
    output belongs
);
    wire word_belongs, pixel_belongs, row_belongs, word_last, pixel_last, row_last;
    place #(.D(C), .START(C0), .COUNT(C1), .STEP(CS)) words (
        .clk(clk), .reset(reset), .step(step), .belongs(word_belongs), .last(word_last)
    );
    place #(.D(N), .START(N0), .COUNT(N1), .STEP(NS)) pixels (
        .clk(clk), .reset(reset), .step(step & word_last), .belongs(pixel_belongs), .last(pixel_last)
    );
    place #(.D(R), .START(R0), .COUNT(R1), .STEP(RS)) rows (
        .clk(clk), .reset(reset), .step(step & word_last & pixel_last), .belongs(row_belongs), .last(row_last)
    );
    assign belongs = word_belongs & pixel_belongs & row_belongs;
endmodule
