// Fixed point to the nearest minifloat (ROUNDING as in round_up.v), saturated; every code finite, -0 never written.
// x is two's complement; its unit is 2^-P of the output's smallest subnormal. Latency 6.
module fixed_to_minifloat #(
    parameter A = 24, E = 4, M = 3, P = 4, ROUNDING = 4
) (
    input  clk, enable,
    input  [A-1:0] x,
    output reg [E+M:0] y
);
    localparam TOP = P + M + (1 << E) - 1;              // bits of the largest magnitude that may be in range
    localparam WM = A < TOP ? A : TOP;                  // bits of the magnitude that are looked at one by one
    localparam PLACES = WM > P + M + 1 ? WM - P - M - 1 : 0;    // powers of two above the smallest normal number
    localparam WN = PLACES == 0 ? 1 : $clog2(PLACES + 1);
    localparam POINT = P + PLACES, WV = POINT + M + 1;  // of the normalised magnitude: digits that go, all digits
    // The rounded code: where x goes beyond the range it may carry, else the lowest x has the highest code.
    localparam WR = A > TOP ? E + M + 1 : A > P + M ? M + $clog2(PLACES + 2) : A - P;
    reg  [A-1:0] x_1, magnitude_2;
    reg  [WM-1:0] magnitude_3;
    reg  [WN-1:0] zeros_3, field_4;
    reg  [WV-1:0] normalised_4;
    reg  [WR-1:0] rounded_5;
    reg  negative_2, negative_3, negative_4, negative_5, beyond_3, beyond_4, beyond_5;

    // The lowest position of the chain makes the carry.
    wire sign = x_1[A-1];
    wire [A:0] magnitude = {x_1 ^ {A{sign}}, 1'b1} + {{A{1'b0}}, sign};

    wire [WN-1:0] zeros;
    wire beyond;
    generate
        if (PLACES == 0) begin : subnormal
            assign zeros = 1'b0;
        end else begin : normal
            leading_zeros #(.N(PLACES)) count (.x(magnitude_2[WM-1-:PLACES]), .count(zeros));
        end
        if (A > TOP) begin : long
            assign beyond = |magnitude_2[A-1:TOP];
        end else begin : short
            assign beyond = 1'b0;
        end
    endgenerate

    // Left-normalised, so that the digits that stay are in a fixed place.
    wire [WV-1:0] wide;
    extend #(.W(WM), .S(0), .WIDER(WV)) extended (.x(magnitude_3), .y(wide));

    wire half, sticky, up;
    generate
        if (POINT == 0) begin : whole
            assign half = 1'b0;
        end else begin : fraction
            assign half = normalised_4[POINT-1];
        end
        if (POINT < 2) begin : short_fraction
            assign sticky = 1'b0;
        end else begin : long_fraction
            assign sticky = |normalised_4[POINT-2:0];
        end
    endgenerate
    round_magnitude_up #(.ROUNDING(ROUNDING)) decide (
        .negative(negative_4), .odd(normalised_4[POINT]), .half(half), .sticky(sticky), .up(up)
    );
    // The significand's leading bit adds 1 to the exponent field: subnormals, which have none, stay in field 0.
    wire [E+M:0] field = {{(E+M){1'b0}}, field_4} << M;
    wire [E+M:0] significand = {{(E+M){1'b0}}, normalised_4[POINT+:M+1]};
    wire [WR:0] rounded = {field[WR-1:0], 1'b1} + {significand[WR-1:0], up};

    wire [E+M-1:0] bounded;
    generate
        if (A > TOP) begin : saturated
            assign bounded = rounded_5[E+M-1:0] | {(E+M){beyond_5 | rounded_5[E+M]}};
        end else begin : in_range
            extend #(.W(WR), .S(0), .WIDER(E+M)) extended (.x(rounded_5), .y(bounded));
        end
    endgenerate
    always @(posedge clk) if (enable) begin
        x_1 <= x;
        magnitude_2 <= magnitude[A:1];
        negative_2 <= sign;
        magnitude_3 <= magnitude_2[WM-1:0];
        zeros_3 <= zeros;
        beyond_3 <= beyond;
        negative_3 <= negative_2;
        normalised_4 <= wide << zeros_3;
        field_4 <= PLACES - zeros_3;
        beyond_4 <= beyond_3;
        negative_4 <= negative_3;
        rounded_5 <= rounded[WR:1];
        beyond_5 <= beyond_4;
        negative_5 <= negative_4;
        y <= {negative_5 & |bounded, bounded};
    end
endmodule
