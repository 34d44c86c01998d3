// Counts the beats of images that go in: `begun` with an image's first, `misaligned` where TLAST comes before its last.
module image_beats #(
    parameter BEATS = 8
) (
    input  clk, resetn, step, last,
    output begun, misaligned
);
    reg  [31:0] count;
    assign begun = step & count == 0;
    assign misaligned = step & last & count != BEATS - 1;
    always @(posedge clk)
        if (~resetn) count <= 0;
        else if (step) count <= count == BEATS - 1 ? 32'd0 : count + 1'b1;
endmodule
