// Beats of a DMA engine, 64 bits, as words of LANES elements of W bits. An element lies in C bits; a word takes the next
// power of two of elements, or whole beats where it is longer than one; an image of WORDS words takes whole beats.
module beats_to_words #(
    parameter LANES = 1, W = 8, C = 8, WORDS = 64
) (
    input  clk, reset, x_valid, y_ready,
    input  [63:0] x,
    output x_ready, y_valid,
    output [LANES*W-1:0] y
);
    localparam E = 64 / C, P = 1 << $clog2(LANES);
    genvar i;
    generate
        if (P > E) begin : longer
            localparam K = (LANES + E - 1) / E;
            wire [K*64-1:0] word;
            gearbox #(.A(1), .B(K), .W(64)) beats (
                .clk(clk), .reset(reset), .x_valid(x_valid), .x(x), .x_ready(x_ready),
                .y_valid(y_valid), .y_ready(y_ready), .y(word)
            );
            for (i = 0; i < LANES; i = i + 1) begin : lane
                assign y[i*W+:W] = word[i*C+:W];
            end
        end else begin : shorter
            localparam R = E / P, ROUND = (WORDS + R - 1) / R * R;
            wire [P*C-1:0] word;
            wire valid, ready, padding;
            gearbox #(.A(R), .B(1), .W(P * C)) words (
                .clk(clk), .reset(reset), .x_valid(x_valid), .x(x), .x_ready(x_ready),
                .y_valid(valid), .y_ready(ready), .y(word)
            );
            for (i = 0; i < LANES; i = i + 1) begin : lane
                assign y[i*W+:W] = word[i*C+:W];
            end
            if (ROUND == WORDS) begin : whole
                assign padding = 1'b0;
            end else begin : padded
                reg [$clog2(ROUND)-1:0] count;
                assign padding = count >= WORDS;
                always @(posedge clk)
                    if (reset) count <= 0;
                    else if (valid & ready) count <= count == ROUND - 1 ? 0 : count + 1'b1;
            end
            assign y_valid = valid & ~padding;
            assign ready = y_ready | padding;
        end
    endgenerate
endmodule
