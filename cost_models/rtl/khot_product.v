// An integer times the magnitude of a k-hot weight, and the weight's sign: K shifters and K - 1 adders.
// Stored as qhw/formats/shifts.py has it: from the lowest bit K shifts, falling, all ones standing for no term; then
// the weight's sign, or with CSD the sign of every term, of which the first one's is the weight's. Latency 1 + clog2(K).
module khot_product #(
    parameter W = 8, S = 1, WB = 8, K = 2, CSD = 0,
    parameter POSITIONS = CSD ? WB : WB - 1, WS = $clog2(POSITIONS + 1),
    // A single term is no longer than the magnitude that it stands for.
    WP = K == 1 ? W + WB - 2 : W + WB - 1
) (
    input  clk, enable,
    input  [W-1:0] x,
    input  [K*WS+(CSD?K:1)-1:0] weight,
    output [WP-1:0] product,
    output negative
);
    localparam PLACES = K == 1 ? WB - 2 : POSITIONS - 1;
    localparam WT = W + PLACES;             // bits of a term
    localparam BITS = PLACES > 0 ? $clog2(PLACES + 1) : 1;
    reg  [K-1:0] minus_1;                   // the terms whose sign is not the weight's
    reg  negative_1;
    wire [K*WP-1:0] terms_1;
    genvar k;
    generate
        for (k = 0; k < K; k = k + 1) begin : term
            wire [WS-1:0] code = weight[k*WS+:WS];
            wire [WT-1:0] shifted;
            reg  [WT-1:0] shifted_1;
            // A term that is absent clears its register, which takes one LUT for all bits.
            wire clear = enable & (&code);
            shift_up_to #(.W(W), .S(S), .PLACES(PLACES)) shifter (
                .x(x), .places(code[BITS-1:0]), .y(shifted)
            );
            extend #(.W(WT), .S(S), .WIDER(WP)) extended (.x(shifted_1), .y(terms_1[k*WP+:WP]));
            always @(posedge clk) begin
                if (clear) shifted_1 <= {WT{1'b0}};
                else if (enable) shifted_1 <= shifted;
                if (enable) minus_1[k] <= CSD ? weight[K*WS+(CSD?k:0)] ^ weight[K*WS] : 1'b0;
            end
        end
    endgenerate
    always @(posedge clk) if (enable) negative_1 <= weight[K*WS];
    signed_sum #(.N(K), .W(WP), .SIGNED(CSD)) added (
        .clk(clk), .enable(enable), .x(terms_1), .minus(minus_1), .sum(product)
    );
    delay #(.D($clog2(K))) delayed_sign (.clk(clk), .enable(enable), .x(negative_1), .y(negative));
endmodule
