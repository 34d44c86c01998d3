// The exact product of two minifloats: (negative ? -1 : 1) * significand * 2^places, in units of the product of
// their smallest subnormals. WS and WP are what a product takes, not a choice.
module minifloat_product #(
    parameter EA = 4, MA = 3, EB = 4, MB = 3,
    // A significand of one bit makes a product no longer.
    WS = MA == 0 || MB == 0 ? MA + MB + 1 : MA + MB + 2,
    SPAN = (1 << EA) + (1 << EB) - 4,
    WP = SPAN == 0 ? 1 : $clog2(SPAN + 1)
) (
    input  [EA+MA:0] a,
    input  [EB+MB:0] b,
    output negative,
    output [WS-1:0] significand,
    output [WP-1:0] places
);
    wire negative_a, negative_b;
    wire [MA:0] significand_a;
    wire [MB:0] significand_b;
    wire [EA-1:0] places_a;
    wire [EB-1:0] places_b;
    wire [MA+MB+1:0] product;
    minifloat_unpack #(.E(EA), .M(MA)) unpack_a (
        .code(a), .negative(negative_a), .significand(significand_a), .places(places_a)
    );
    minifloat_unpack #(.E(EB), .M(MB)) unpack_b (
        .code(b), .negative(negative_b), .significand(significand_b), .places(places_b)
    );
    multiply #(.WA(MA+1), .WB(MB+1), .SA(0), .SB(0)) multiplier (
        .a(significand_a), .b(significand_b), .product(product)
    );
    assign negative = negative_a ^ negative_b;
    assign significand = product[WS-1:0];
    assign places = places_a + places_b;
endmodule
