// Multiply-accumulate of an integer and a minifloat: sum <= (first ? 0 : sum) + a * b, exactly, in A bits of fixed
// point whose unit is the minifloat's smallest subnormal. Latency 3 and the shifter's.
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
    localparam SPAN = (1 << EB) - 2, STAGES = (EB + 1) / 2;
    reg  [WA-1:0] a_1;
    reg  [EB+MB:0] b_1;
    reg  negative_2;
    reg  [WS-1:0] product_2;
    reg  [EB-1:0] places_2;
    wire negative, negative_last, first_last;
    wire [MB:0] significand;
    wire [EB-1:0] places;
    wire [WA+MB:0] product;
    wire [WS+SPAN-1:0] shifted;
    minifloat_unpack #(.E(EB), .M(MB)) unpack (
        .code(b_1), .negative(negative), .significand(significand), .places(places)
    );
    multiply #(.WA(WA), .WB(MB+1), .SA(SA), .SB(0)) multiplier (.a(a_1), .b(significand), .product(product));
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
        negative_2 <= negative;
        product_2 <= product[WS-1:0];
        places_2 <= places;
    end
    shift_left #(.W(WS), .S(SA), .WP(EB), .WY(WS+SPAN)) shifter (
        .clk(clk), .enable(enable), .x(product_2), .places(places_2), .y(shifted)
    );
    delay #(.D(STAGES)) signs (.clk(clk), .enable(enable), .x(negative_2), .y(negative_last));
    delay #(.D(2 + STAGES)) firsts (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate_signed #(.W(WS+SPAN), .S(SA), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .negative(negative_last), .x(shifted), .sum(sum)
    );
endmodule
