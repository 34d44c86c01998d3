// Drives a folded layer: for each of P pixels F folds of the outputs, for each of these I folds of the inputs, a word
// of inputs a step. `address` is that of the weights; D enabled edges after the last word of a sum its numbers are
// there: y_valid, and y_last behind the last sum of the last pixel.
// `enable` moves the whole pipeline and takes a word where one is valid. Between two sums it goes on without a word, so
// that finished numbers leave; in the midst of a sum it waits for one, and always for y_ready.
module layer_control #(
    parameter P = 64, F = 4, I = 9, D = 9, WA = F * I > 1 ? $clog2(F * I) : 1
) (
    input  clk, reset, x_valid, y_ready,
    output enable, y_valid, y_last,
    output reg first,
    output [WA-1:0] address
);
    reg  [D-1:0] valid, last;
    wire goes = x_valid | first;
    wire step = enable & x_valid;
    wire sum_ends, weights_end, image_ends;
    assign enable = goes & (~valid[D-1] | y_ready);
    assign y_valid = goes & valid[D-1];
    assign y_last = last[D-1];
    generate
        if (F * I == 1) begin : one_word
            assign address = 1'b0;
            assign weights_end = 1'b1;
        end else begin : words
            cycle #(.D(F * I)) count (.clk(clk), .reset(reset), .enable(step), .y(address));
            assign weights_end = address == F * I - 1;
        end
        if (F == 1) begin : one_sum
            assign sum_ends = weights_end;
        end else begin : sums
            counted #(.N(I)) count (.clk(clk), .reset(reset), .step(step), .last(sum_ends));
        end
    endgenerate
    counted #(.N(P)) pixels (.clk(clk), .reset(reset), .step(step & weights_end), .last(image_ends));
    always @(posedge clk)
        if (reset) begin
            first <= 1'b1;
            valid <= 0;
            last <= 0;
        end else begin
            if (step) first <= sum_ends;
            if (enable) begin
                valid <= {valid, step & sum_ends};
                last <= {last, step & weights_end & image_ends};
            end
        end
endmodule
