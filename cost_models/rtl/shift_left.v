// x * 2^places in WY bits; x is two's complement (S=1) or unsigned. Two bits of `places` a stage, the lowest first,
// and a register behind each: a bit of a stage is one LUT. Latency (WP + 1) / 2.
module shift_left #(
    parameter W = 4, S = 0, WP = 3, WY = 11
) (
    input  clk, enable,
    input  [W-1:0] x,
    input  [WP-1:0] places,
    output [WY-1:0] y
);
    generate
        if (WP <= 2) begin : one
            shift_stage #(.W(W), .S(S), .WP(WP), .STEP(1), .WY(WY)) stage (
                .clk(clk), .enable(enable), .x(x), .places(places), .y(y)
            );
        end else begin : more
            // The lowest stage takes one bit where their number is odd.
            localparam STEP = 1 << (WP - 2), WIDEST = W + STEP - 1, WI = WIDEST < WY ? WIDEST : WY;
            wire [WI-1:0] shifted;
            wire [1:0] rest;
            shift_left #(.W(W), .S(S), .WP(WP-2), .WY(WI)) low (
                .clk(clk), .enable(enable), .x(x), .places(places[WP-3:0]), .y(shifted)
            );
            delay #(.W(2), .D((WP - 1) / 2)) delayed (
                .clk(clk), .enable(enable), .x(places[WP-1:WP-2]), .y(rest)
            );
            shift_stage #(.W(WI), .S(S), .WP(2), .STEP(STEP), .WY(WY)) high (
                .clk(clk), .enable(enable), .x(shifted), .places(rest), .y(y)
            );
        end
    endgenerate
endmodule

// Registered: x * 2^(STEP * places) in WY bits. Gates, not a choice: a choice of zeros before a register becomes a
// synchronous reset, and each group of bits would have its own.
module shift_stage #(
    parameter W = 4, S = 0, WP = 2, STEP = 1, WY = 7
) (
    input  clk, enable,
    input  [W-1:0] x,
    input  [WP-1:0] places,
    output reg [WY-1:0] y
);
    wire [WY-1:0] wide;
    wire [WY-1:0] chosen [0:(1<<WP)-1];
    wire [WY-1:0] shifted;
    extend #(.W(W), .S(S), .WIDER(WY)) extended (.x(x), .y(wide));
    genvar i;
    generate
        for (i = 0; i < 1 << WP; i = i + 1) begin : choice
            assign chosen[i] = (wide << (i * STEP)) & {WY{places == i}};
        end
        if (WP == 1) begin : two
            assign shifted = chosen[0] | chosen[1];
        end else begin : four
            assign shifted = chosen[0] | chosen[1] | chosen[2] | chosen[3];
        end
    endgenerate
    always @(posedge clk) if (enable) y <= shifted;
endmodule
