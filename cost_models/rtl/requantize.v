// x * 2^-SHIFT, rounded and saturated: WI bits (SI: signed) to WO bits (SO: signed). Latency 3.
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
    reg  [WR-1:0] rounded_2;
    wire up;
    generate
        if (S == 0) begin : whole
            assign up = 1'b0;
        end else begin : fraction
            wire sticky;
            if (S == 1) begin : one
                assign sticky = 1'b0;
            end else begin : more
                assign sticky = |x_1[S-2:0];
            end
            round_up #(.ROUNDING(ROUNDING)) decide (
                .negative((SI != 0) & x_1[WI-1]), .odd(x_1[S]), .half(x_1[S-1]), .sticky(sticky), .up(up)
            );
        end
    endgenerate
    wire [WR-1:0] floor;
    wire [WR:0] sum = {floor, 1'b1} + {{WR{1'b0}}, up};
    extend #(.W(WF), .S(SI), .WIDER(WR)) extended (.x(x_1[WI-1:S]), .y(floor));
    always @(posedge clk) if (enable) begin
        x_1 <= x;
        rounded_2 <= sum[WR:1];
    end
    saturate #(.WI(WR), .SI(SI), .WO(WO), .SO(SO)) bounded (
        .clk(clk), .enable(enable), .x(rounded_2), .y(y)
    );
endmodule

// Registered: the nearest number of WO bits (SO: signed).
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
    wire negative = wide[WX-1];
    generate
        if (SO) begin : signed_
            wire fits = &wide[WX-1:WM] | ~|wide[WX-1:WM];
            if (WO == 1) begin : sign_only
                always @(posedge clk) if (enable) y <= negative;
            end else begin : more
                always @(posedge clk) if (enable) y <= fits ? wide[WO-1:0] : {negative, {WM{!negative}}};
            end
        end else begin : unsigned_
            wire fits = ~|wide[WX-1:WM];
            always @(posedge clk) if (enable) y <= fits ? wide[WO-1:0] : {WO{!negative}};
        end
    endgenerate
endmodule
