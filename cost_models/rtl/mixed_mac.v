// Multiply-accumulate of an integer and a minifloat: sum <= (first ? 0 : sum) + a * b, exactly, in A bits of fixed
// point whose unit is the minifloat's smallest subnormal. Latency 4.
module mixed_mac #(
    parameter WA = 8, SA = 1, EB = 4, MB = 3, A = 32
) (
    input  clk, enable, first,
    input  [WA-1:0] a,
    input  [EB+MB:0] b,
    output [A-1:0] sum
);
    // A factor of one bit that is 0 or 1 makes a product no longer.
    localparam WS = MB == 0 ? WA : WA == 1 && SA == 0 ? MB + 1 : WA + MB + 1;
    localparam SPAN = (1 << EB) - 2;
    reg  [WA-1:0] a_1;
    reg  [EB+MB:0] b_1;
    reg  negative_2, negative_3;
    reg  [WS-1:0] product_2;
    reg  [EB-1:0] places_2;
    reg  [WS+SPAN-1:0] shifted_3;
    wire negative, first_3;
    wire [MB:0] significand;
    wire [EB-1:0] places;
    wire [WA+MB:0] product;
    wire [WS+SPAN-1:0] wide;
    minifloat_unpack #(.E(EB), .M(MB)) unpack (
        .code(b_1), .negative(negative), .significand(significand), .places(places)
    );
    multiply #(.WA(WA), .WB(MB+1), .SA(SA), .SB(0)) multiplier (.a(a_1), .b(significand), .product(product));
    extend #(.W(WS), .S(SA), .WIDER(WS+SPAN)) extended (.x(product_2), .y(wide));
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
        negative_2 <= negative;
        product_2 <= product[WS-1:0];
        places_2 <= places;
        negative_3 <= negative_2;
        shifted_3 <= wide << places_2;
    end
    delay #(.D(3)) delayed (.clk(clk), .enable(enable), .x(first), .y(first_3));
    accumulate_signed #(.W(WS+SPAN), .S(SA), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_3), .negative(negative_3), .x(shifted_3), .sum(sum)
    );
endmodule
