// x * 2^places for 0 <= places <= PLACES, x signed (S=1) or not: two bits of the amount a stage, the lowest first.
// Gates, not a choice: of a choice of zeros in front of a register, synthesis would make resets.
module shift_up_to #(
    parameter W = 8, S = 1, PLACES = 7, STEP = 1, B = PLACES > 0 ? $clog2(PLACES + 1) : 1,
    WIDER = W + PLACES * STEP
) (
    input  [W-1:0] x,
    input  [B-1:0] places,
    output [WIDER-1:0] y
);
    localparam MOST = PLACES < 3 ? PLACES : 3;
    localparam LOW = B < 2 ? B : 2;
    localparam WN = W + MOST * STEP < WIDER ? W + MOST * STEP : WIDER;
    genvar i;
    generate
        if (PLACES == 0) begin : still
            assign y = x;
        end else begin : stage
            wire [WN-1:0] wide, next;
            wire [WN-1:0] chosen [0:MOST];
            extend #(.W(W), .S(S), .WIDER(WN)) extended (.x(x), .y(wide));
            for (i = 0; i <= MOST; i = i + 1) begin : choice
                // Two places leave the code 3 of two bits over, which then counts as 2.
                wire here = i == 2 && MOST == 2 ? places[1] : places[LOW-1:0] == i;
                assign chosen[i] = (wide << (i * STEP)) & {WN{here}};
            end
            if (MOST == 1) begin : two
                assign next = chosen[0] | chosen[1];
            end else if (MOST == 2) begin : three
                assign next = chosen[0] | chosen[1] | chosen[2];
            end else begin : four
                assign next = chosen[0] | chosen[1] | chosen[2] | chosen[3];
            end
            if (B <= 2) begin : last
                assign y = next;
            end else begin : more
                shift_up_to #(.W(WN), .S(S), .PLACES(PLACES / 4), .STEP(4 * STEP), .WIDER(WIDER)) rest (
                    .x(next), .places(places[B-1:2]), .y(y)
                );
            end
        end
    endgenerate
endmodule
