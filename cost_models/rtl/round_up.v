// Whether a number is rounded away from its floor (two's complement), by the digits below the last one.
// ROUNDING: 0 RND, 1 RND_ZERO, 2 RND_MIN_INF, 3 RND_INF, 4 RND_CONV, 5 TRN, 6 TRN_ZERO, 7 CEIL, 8 UP.
module round_up #(
    parameter ROUNDING = 4
) (
    input  negative,    // the number
    input  odd,         // the last digit that stays
    input  half,        // the first digit that goes
    input  sticky,      // whether any digit behind that one is set
    output up
);
    generate
        case (ROUNDING)
            0: assign up = half;
            1: assign up = half & (sticky | negative);
            2: assign up = half & sticky;
            3: assign up = half & (sticky | ~negative);
            4: assign up = half & (sticky | odd);
            5: assign up = 1'b0;
            6: assign up = negative & (half | sticky);
            7: assign up = half | sticky;
            default: assign up = ~negative & (half | sticky);
        endcase
    endgenerate
endmodule
