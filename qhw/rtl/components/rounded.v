// x * 2^-S, rounded and saturated: WI bits (SI: signed) to WO bits (SO: signed), in one clock cycle. Latency 1.
// ROUNDING: as in requantize.v.
module rounded #(
    parameter WI = 24, WO = 8, S = 8, SI = 1, SO = 1, ROUNDING = 4
) (
    input  clk, enable,
    input  [WI-1:0] x,
    output reg [WO-1:0] y
);
    localparam WF = WI - S;             // bits of the floor
    localparam WR = WF + (S > 0);       // bits of the rounded number: rounding up may carry
    localparam WM = SO ? WO - 1 : WO;   // bits of the result without its sign
    // The number with a sign bit, and one bit more at least than the result has without its sign.
    localparam WX = WR + !SI > WM + 1 ? WR + !SI : WM + 1;
    wire [WR-1:0] floor, number;
    wire [WX-1:0] wide;
    wire up;
    extend #(.W(WF), .S(SI), .WIDER(WR)) lower (.x(x[WI-1:S]), .y(floor));
    extend #(.W(WR), .S(SI), .WIDER(WX)) wider (.x(number), .y(wide));
    assign number = floor + {{WR{1'b0}}, up};
    generate
        if (S == 0) begin : whole
            assign up = 1'b0;
        end else begin : fraction
            wire sticky;
            if (S == 1) begin : one
                assign sticky = 1'b0;
            end else begin : more
                assign sticky = |x[S-2:0];
            end
            round_up #(.ROUNDING(ROUNDING)) decide (
                .negative((SI != 0) & x[WI-1]), .odd(x[S]), .half(x[S-1]), .sticky(sticky), .up(up)
            );
        end
    endgenerate
    wire fits = SO ? &wide[WX-1:WM] | ~|wide[WX-1:WM] : ~|wide[WX-1:WM];
    generate
        if (SO && WO == 1) begin : sign_only
            always @(posedge clk) if (enable) y <= wide[WX-1];
        end else begin : kept
            wire [WM-1:0] bounded = (wide[WM-1:0] & {WM{fits}}) | {WM{!fits & !wide[WX-1]}};
            if (SO) begin : signed_
                always @(posedge clk) if (enable) y <= {wide[WX-1], bounded};
            end else begin : unsigned_
                always @(posedge clk) if (enable) y <= bounded;
            end
        end
    endgenerate
endmodule
