// Words of LANES elements of W bits as beats of a DMA engine, 64 bits; the elements lie in them as in beats_to_words.
// `y_last` goes with an image's last beat.
module words_to_beats #(
    parameter LANES = 1, W = 8, C = 8, WORDS = 64, SIGNED = 1
) (
    input  clk, reset, x_valid, y_ready,
    input  [LANES*W-1:0] x,
    output x_ready, y_valid, y_last,
    output [63:0] y
);
    localparam E = 64 / C, P = 1 << $clog2(LANES), K = (LANES + E - 1) / E;
    localparam R = P > E ? 1 : E / P, SPACE = P > E ? K * 64 : P * C;
    localparam BEATS = P > E ? WORDS * K : (WORDS + R - 1) / R, ROUND = (WORDS + R - 1) / R * R;
    wire [SPACE-1:0] word;
    genvar i;
    generate
        for (i = 0; i < SPACE / C; i = i + 1) begin : lane
            if (i >= LANES) begin : none
                assign word[i*C+:C] = {C{1'b0}};
            end else if (W == C) begin : full
                assign word[i*C+:C] = x[i*W+:W];
            end else begin : extended
                assign word[i*C+:C] = {{C-W{SIGNED ? x[i*W+W-1] : 1'b0}}, x[i*W+:W]};
            end
        end
        if (P > E) begin : longer
            gearbox #(.A(K), .B(1), .W(64)) beats (
                .clk(clk), .reset(reset), .x_valid(x_valid), .x(word), .x_ready(x_ready),
                .y_valid(y_valid), .y_ready(y_ready), .y(y)
            );
        end else begin : shorter
            wire ready, padding;
            gearbox #(.A(1), .B(R), .W(SPACE)) words (
                .clk(clk), .reset(reset), .x_valid(x_valid | padding), .x(padding ? {SPACE{1'b0}} : word),
                .x_ready(ready), .y_valid(y_valid), .y_ready(y_ready), .y(y)
            );
            assign x_ready = ready & ~padding;
            if (ROUND == WORDS) begin : whole
                assign padding = 1'b0;
            end else begin : padded
                reg [$clog2(ROUND)-1:0] count;
                assign padding = count >= WORDS;
                always @(posedge clk)
                    if (reset) count <= 0;
                    else if ((x_valid | padding) & ready) count <= count == ROUND - 1 ? 0 : count + 1'b1;
            end
        end
    endgenerate
    counted #(.N(BEATS)) image (.clk(clk), .reset(reset), .step(y_valid & y_ready), .last(y_last));
endmodule
