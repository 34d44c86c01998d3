// Fixed point to the nearest minifloat (ROUNDING as in round_up.v), saturated; every code finite, -0 never written.
// x is two's complement; its unit is 2^-P of the output's smallest subnormal. Latency 5 and the shifter's.
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
    localparam STAGES = (WN + 1) / 2;
    localparam POINT = P + PLACES, WV = POINT + M + 1;  // of the normalised magnitude: digits that go, all digits
    // The rounded code: where x goes beyond the range it may carry, else the lowest x has the highest code.
    localparam WR = A > TOP ? E + M + 1 : A > P + M ? M + $clog2(PLACES + 2) : A - P;
    reg  [A-1:0] x_1, magnitude_2;
    reg  [WM-1:0] magnitude_3;
    reg  [WN-1:0] zeros_3, field;
    reg  [WR-1:0] rounded_last;
    reg  negative_2, negative_3, negative_last, beyond_3, beyond_last;

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
    wire [WV-1:0] normalised;
    wire [WN-1:0] zeros_before;
    wire negative_shifted, beyond_shifted;
    shift_left #(.W(WM), .S(0), .WP(WN), .WY(WV)) normalise (
        .clk(clk), .enable(enable), .x(magnitude_3), .places(zeros_3), .y(normalised)
    );
    delay #(.W(WN), .D(STAGES - 1)) counts (.clk(clk), .enable(enable), .x(zeros_3), .y(zeros_before));
    delay #(.W(2), .D(STAGES)) flags (
        .clk(clk), .enable(enable), .x({negative_3, beyond_3}), .y({negative_shifted, beyond_shifted})
    );

    wire half, sticky, up;
    generate
        if (POINT == 0) begin : whole
            assign half = 1'b0;
        end else begin : fraction
            assign half = normalised[POINT-1];
        end
        if (POINT < 2) begin : short_fraction
            assign sticky = 1'b0;
        end else begin : long_fraction
            assign sticky = |normalised[POINT-2:0];
        end
    endgenerate
    round_magnitude_up #(.ROUNDING(ROUNDING)) decide (
        .negative(negative_shifted), .odd(normalised[POINT]), .half(half), .sticky(sticky), .up(up)
    );
    // The significand's leading bit adds 1 to the exponent field: subnormals, which have none, stay in field 0.
    wire [E+M:0] exponent = {{(E+M){1'b0}}, field} << M;
    wire [E+M:0] significand = {{(E+M){1'b0}}, normalised[POINT+:M+1]};
    wire [WR:0] rounded = {exponent[WR-1:0], 1'b1} + {significand[WR-1:0], up};

    wire [E+M-1:0] bounded;
    generate
        if (A > TOP) begin : saturated
            assign bounded = rounded_last[E+M-1:0] | {(E+M){beyond_last | rounded_last[E+M]}};
        end else begin : in_range
            extend #(.W(WR), .S(0), .WIDER(E+M)) extended (.x(rounded_last), .y(bounded));
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
        field <= PLACES - zeros_before;
        rounded_last <= rounded[WR:1];
        beyond_last <= beyond_shifted;
        negative_last <= negative_shifted;
        y <= {negative_last & |bounded, bounded};
    end
endmodule
