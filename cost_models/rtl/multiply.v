// The exact product of two integers, each two's complement (S=1) or unsigned (S=0).
module multiply #(
    parameter WA = 4, WB = 4, SA = 1, SB = 1
) (
    input  [WA-1:0] a,
    input  [WB-1:0] b,
    output [WA+WB-1:0] product
);
    generate
        if (SA && SB) begin : both_signed
            wire signed [WA+WB-1:0] exact = $signed(a) * $signed(b);
            assign product = exact;
        end else if (SA) begin : a_signed
            wire signed [WA+WB-1:0] exact = $signed(a) * $signed({1'b0, b});
            assign product = exact;
        end else if (SB) begin : b_signed
            wire signed [WA+WB-1:0] exact = $signed({1'b0, a}) * $signed(b);
            assign product = exact;
        end else begin : unsigned_
            assign product = a * b;
        end
    endgenerate
endmodule
