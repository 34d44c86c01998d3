// x * 2^places for 0 <= places <= PLACES, x signed (S=1) or not: two bits of the amount a stage.
module shift_left #(
    parameter W = 8, S = 1, PLACES = 7, STEP = 1, B = $clog2(PLACES + 1), WIDER = W + PLACES * STEP
) (
    input  [W-1:0] x,
    input  [(B>0?B:1)-1:0] places,
    output [WIDER-1:0] y
);
    localparam MOST = PLACES < 3 ? PLACES : 3;
    localparam WN = W + MOST * STEP < WIDER ? W + MOST * STEP : WIDER;
    generate
        if (PLACES == 0) begin : still
            assign y = x;
        end else begin : stage
            wire [WN-1:0] wide, next;
            extend #(.W(W), .S(S), .WIDER(WN)) extended (.x(x), .y(wide));
            if (PLACES == 1) begin : two
                assign next = places[0] ? wide << STEP : wide;
            end else if (PLACES == 2) begin : three
                assign next = places[1] ? wide << 2 * STEP : places[0] ? wide << STEP : wide;
            end else begin : four
                assign next = places[1] ? (places[0] ? wide << 3 * STEP : wide << 2 * STEP)
                                        : (places[0] ? wide << STEP : wide);
            end
            if (B <= 2) begin : last
                assign y = next;
            end else begin : more
                shift_left #(.W(WN), .S(S), .PLACES(PLACES / 4), .STEP(4 * STEP), .WIDER(WIDER)) rest (
                    .x(next), .places(places[B-1:2]), .y(y)
                );
            end
        end
    endgenerate
endmodule
