// P multiply-accumulates in one DSP slice: P signed weights b_i share one operand a,
// sum_i <= (first ? 0 : sum_i) + a * b_i, in A bits each. Latency 5.
// The slice is a DSP48E2 (MULTIPLIER=1) or a DSP48E1 (2). Its pre-adder puts the weights S bits apart, and its product holds
// those of all weights (packing as in AMD WP486 and in FINN's matrix-vector unit).
module packed_mac #(
    parameter WA = 4, WB = 4, SA = 0, P = 4, A = 16, MULTIPLIER = 1, E2 = MULTIPLIER == 1
) (
    input  clk, enable, first,
    input  [WA-1:0] a,
    input  [P*WB-1:0] b,
    output [P*A-1:0] sum
);
    localparam S = WA + WB - 1;     // a product needs one bit more, which is told from its neighbour's last bit
    localparam PORT = E2 ? 27 : 25;
    wire [PORT-1:0] magnitudes, signs;
    wire [17:0] wide_a;
    wire [47:0] product;
    wire first_4, odd_a_4;
    wire [P-1:0] odd, odd_4;
    wire [P-1:0] negative;          // whether a field and what it borrowed is below 0
    genvar i;

    // The pre-adder subtracts the signs' weights from the bits below them, so that nothing is spent on packing.
    generate
        for (i = 0; i < P; i = i + 1) begin : weight
            localparam LAST = i == P - 1 ? PORT - i*S : S;
            assign magnitudes[i*S+:LAST] = {{(LAST-WB+1){1'b0}}, b[i*WB+:WB-1]};
            assign signs[i*S+:LAST] = {{(LAST-WB){1'b0}}, b[i*WB+WB-1], {(WB-1){1'b0}}};
            assign odd[i] = b[i*WB];
        end
    endgenerate
    extend #(.W(WA), .S(SA), .WIDER(18)) extended (.x(a), .y(wide_a));
    dsp48_preadd #(.E2(E2)) slice (
        .clk(clk), .enable(enable), .d(magnitudes), .a(signs), .b(wide_a), .product(product)
    );
    delay #(.D(4)) delayed_first (.clk(clk), .enable(enable), .x(first), .y(first_4));
    delay #(.D(4)) delayed_odd_a (.clk(clk), .enable(enable), .x(a[0]), .y(odd_a_4));
    delay #(.W(P), .D(4)) delayed_odd (.clk(clk), .enable(enable), .x(odd), .y(odd_4));

    generate
        for (i = 0; i < P; i = i + 1) begin : lane
            reg  [A-1:0] total;
            wire [S:0] field = {negative[i], product[i*S+:S]};
            wire [A-1:0] wide;
            wire borrowed;
            // A field's last bit differs from that of the product itself where the field below borrowed from it.
            if (i == P - 1) begin : top
                assign negative[i] = product[P*S];
            end else begin : inner
                assign negative[i] = product[(i+1)*S] ^ (odd_a_4 & odd_4[i+1]);
            end
            if (i == 0) begin : bottom
                assign borrowed = 1'b0;
            end else begin : above
                assign borrowed = negative[i-1];
            end
            extend #(.W(S + 1), .S(1), .WIDER(A)) extended_field (.x(field), .y(wide));
            wire [A:0] next = {first_4 ? {A{1'b0}} : total, 1'b1} + {wide, borrowed};
            always @(posedge clk) if (enable) total <= next[A:1];
            assign sum[i*A+:A] = total;
        end
    endgenerate
endmodule
