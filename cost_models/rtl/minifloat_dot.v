// Multiply-accumulate of two vectors of L minifloats: sum <= (first ? 0 : sum) + a . b, exactly, in A bits of fixed
// point whose unit is the product of the smallest subnormals. Latency 4 + clog2(L) and the shifter's.
module minifloat_dot #(
    parameter EA = 4, MA = 3, EB = 4, MB = 3, L = 4, A = 48
) (
    input  clk, enable, first,
    input  [L*(EA+MA+1)-1:0] a,
    input  [L*(EB+MB+1)-1:0] b,
    output [A-1:0] sum
);
    localparam WS = MA == 0 || MB == 0 ? MA + MB + 1 : MA + MB + 2;
    localparam SPAN = (1 << EA) + (1 << EB) - 4, WL = WS + SPAN + 1, LEVELS = $clog2(L);
    localparam STAGES = SPAN == 0 ? 1 : ($clog2(SPAN + 1) + 1) / 2;
    wire [L*WL-1:0] products;
    wire [WL+LEVELS-1:0] lanes;
    wire first_last;
    genvar i;
    generate
        for (i = 0; i < L; i = i + 1) begin : lane
            minifloat_lane #(.EA(EA), .MA(MA), .EB(EB), .MB(MB)) product (
                .clk(clk), .enable(enable), .a(a[i*(EA+MA+1)+:EA+MA+1]), .b(b[i*(EB+MB+1)+:EB+MB+1]),
                .product(products[i*WL+:WL])
            );
        end
    endgenerate
    sum_tree #(.N(L), .W(WL), .S(1)) tree (.clk(clk), .enable(enable), .x(products), .sum(lanes));
    delay #(.D(3 + STAGES + LEVELS)) delayed (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate #(.W(WL + LEVELS), .S(1), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .x(lanes), .sum(sum)
    );
endmodule

// Registered: the product of two minifloats in fixed point. It is negated before it is shifted, where it is short.
// Latency 3 and the shifter's.
module minifloat_lane #(
    parameter EA = 4, MA = 3, EB = 4, MB = 3,
    WS = MA == 0 || MB == 0 ? MA + MB + 1 : MA + MB + 2,
    SPAN = (1 << EA) + (1 << EB) - 4,
    WP = SPAN == 0 ? 1 : $clog2(SPAN + 1)
) (
    input  clk, enable,
    input  [EA+MA:0] a,
    input  [EB+MB:0] b,
    output [WS+SPAN:0] product
);
    reg  [EA+MA:0] a_1;
    reg  [EB+MB:0] b_1;
    reg  negative_2;
    reg  [WS-1:0] significand_2;
    reg  [WS:0] significand_3;
    reg  [WP-1:0] places_2, places_3;
    wire negative;
    wire [WS-1:0] significand;
    wire [WP-1:0] places;
    minifloat_product #(.EA(EA), .MA(MA), .EB(EB), .MB(MB)) exact (
        .a(a_1), .b(b_1), .negative(negative), .significand(significand), .places(places)
    );
    // The lowest position of the chain makes the carry.
    wire [WS+1:0] folded = {{1'b0, significand_2} ^ {(WS+1){negative_2}}, 1'b1} + {{(WS+1){1'b0}}, negative_2};
    shift_left #(.W(WS+1), .S(1), .WP(WP), .WY(WS+SPAN+1)) shifter (
        .clk(clk), .enable(enable), .x(significand_3), .places(places_3), .y(product)
    );
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
        negative_2 <= negative;
        significand_2 <= significand;
        places_2 <= places;
        significand_3 <= folded[WS+1:1];
        places_3 <= places_2;
    end
endmodule
