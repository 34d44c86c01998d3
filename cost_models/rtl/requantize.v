// x * 2^-S, rounded and saturated: WI bits (SI: signed) to WO bits (SO: signed). Latency 5: every decision has a
// register behind it, so that what each costs adds up.
// ROUNDING: 0 RND, 1 RND_ZERO, 2 RND_MIN_INF, 3 RND_INF, 4 RND_CONV, 5 TRN, 6 TRN_ZERO, 7 CEIL, 8 UP.
module requantize #(
    parameter WI = 24, WO = 8, S = 8, SI = 1, SO = 1, ROUNDING = 4
) (
    input  clk, enable,
    input  [WI-1:0] x,
    output [WO-1:0] y
);
    localparam WF = WI - S;             // bits of the floor
    localparam WR = WF + (S > 0);       // bits of the rounded number: rounding up may carry
    reg  [WI-1:0] x_1;
    reg  [WF-1:0] floor_2;
    reg  [WR-1:0] rounded_3;
    wire up;
    generate
        if (S == 0) begin : whole
            assign up = 1'b0;
        end else begin : fraction
            reg half_2, sticky_2;
            wire sticky;
            if (S == 1) begin : one
                assign sticky = 1'b0;
            end else begin : more
                assign sticky = |x_1[S-2:0];
            end
            always @(posedge clk) if (enable) begin
                half_2 <= x_1[S-1];
                sticky_2 <= sticky;
            end
            round_up #(.ROUNDING(ROUNDING)) decide (
                .negative((SI != 0) & floor_2[WF-1]), .odd(floor_2[0]), .half(half_2), .sticky(sticky_2), .up(up)
            );
        end
    endgenerate
    wire [WR-1:0] floor;
    wire [WR:0] sum = {floor, 1'b1} + {{WR{1'b0}}, up};
    extend #(.W(WF), .S(SI), .WIDER(WR)) extended (.x(floor_2), .y(floor));
    always @(posedge clk) if (enable) begin
        x_1 <= x;
        floor_2 <= x_1[WI-1:S];
        rounded_3 <= sum[WR:1];
    end
    saturate #(.WI(WR), .SI(SI), .WO(WO), .SO(SO)) bounded (
        .clk(clk), .enable(enable), .x(rounded_3), .y(y)
    );
endmodule

// The nearest number of WO bits (SO: signed): first whether it fits, then the number or its bound. Latency 2.
module saturate #(
    parameter WI = 16, SI = 1, WO = 8, SO = 1
) (
    input  clk, enable,
    input  [WI-1:0] x,
    output reg [WO-1:0] y
);
    // The number with a sign bit, and one bit more at least than the result has without its sign.
    localparam WM = SO ? WO - 1 : WO;
    localparam WX = WI + !SI > WM + 1 ? WI + !SI : WM + 1;
    wire [WX-1:0] wide;
    extend #(.W(WI), .S(SI), .WIDER(WX)) extended (.x(x), .y(wide));
    wire fits = SO ? &wide[WX-1:WM] | ~|wide[WX-1:WM] : ~|wide[WX-1:WM];
    reg  fits_1, negative_1;
    always @(posedge clk) if (enable) begin
        fits_1 <= fits;
        negative_1 <= wide[WX-1];
    end
    generate
        if (SO && WO == 1) begin : sign_only
            always @(posedge clk) if (enable) y <= negative_1;
        end else begin : kept
            reg  [WM-1:0] last_1;
            always @(posedge clk) if (enable) last_1 <= wide[WM-1:0];
            // Gates, not a choice: of a choice between a number and ones Yosys makes a set input, now and then.
            wire [WM-1:0] bounded = (last_1 & {WM{fits_1}}) | {WM{!fits_1 & !negative_1}};
            if (SO) begin : signed_
                always @(posedge clk) if (enable) y <= {negative_1, bounded};
            end else begin : unsigned_
                always @(posedge clk) if (enable) y <= bounded;
            end
        end
    endgenerate
endmodule
