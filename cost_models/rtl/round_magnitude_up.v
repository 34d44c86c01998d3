// Whether the magnitude of a number is rounded up, by the digits below the last one: what round_up says of the
// number itself, for a sign and a magnitude. ROUNDING as there; the modes that look to one side of the number
// line turn around where it is negative.
module round_magnitude_up #(
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
            0: assign up = half & (sticky | ~negative);
            1: assign up = half & sticky;
            2: assign up = half & (sticky | negative);
            3: assign up = half;
            4: assign up = half & (sticky | odd);
            5: assign up = negative & (half | sticky);
            6: assign up = 1'b0;
            7: assign up = ~negative & (half | sticky);
            default: assign up = half | sticky;
        endcase
    endgenerate
endmodule
