// A minifloat's code taken apart: the number is (negative ? -1 : 1) * significand * 2^places, in units of the
// smallest subnormal. Every code is finite; exponent field 0 holds zero and the subnormals.
module minifloat_unpack #(
    parameter E = 4, M = 3
) (
    input  [E+M:0] code,
    output negative,
    output [M:0] significand,
    output [E-1:0] places
);
    wire [E-1:0] field = code[E+M-1:M];
    wire normal = |field;
    assign negative = code[E+M];
    generate
        if (M == 0) begin : bare
            assign significand = normal;
        end else begin : with_mantissa
            assign significand = {normal, code[M-1:0]};
        end
        // Field 1 stands for the same power of two as field 0; one exponent bit knows no others.
        if (E == 1) begin : fixed
            assign places = 1'b0;
        end else begin : floating
            assign places = field - normal;
        end
    endgenerate
endmodule
