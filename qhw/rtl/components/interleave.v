// Joins streams: NA words of a, then NB words of b, and so on.
module interleave #(
    parameter W = 8, NA = 1, NB = 1
) (
    input  clk, reset, a_valid, b_valid, y_ready,
    input  [W-1:0] a, b,
    output a_ready, b_ready, y_valid,
    output [W-1:0] y
);
    wire from_a, last;
    place #(.D(NA + NB), .START(0), .COUNT(NA)) turn (
        .clk(clk), .reset(reset), .step(y_valid & y_ready), .belongs(from_a), .last(last)
    );
    assign y_valid = from_a ? a_valid : b_valid;
    assign y = from_a ? a : b;
    assign a_ready = y_ready & from_a;
    assign b_ready = y_ready & ~from_a;
endmodule
