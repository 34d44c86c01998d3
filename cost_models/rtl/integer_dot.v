// Multiply-accumulate of two vectors of L integers: sum <= (first ? 0 : sum) + a . b, in A bits.
// MULTIPLIER: 0 LUTs, 1 DSP48E2, 2 DSP48E1, 3 ECP5 MULT18X18D, one for each lane; the sums are made in LUTs.
// Latency 3 + clog2(L), one more with a DSP48, whose product leaves through its P register.
module integer_dot #(
    parameter WA = 4, WB = 4, SA = 1, SB = 1, L = 8, A = 20, MULTIPLIER = 0
) (
    input  clk, enable, first,
    input  [L*WA-1:0] a,
    input  [L*WB-1:0] b,
    output [A-1:0] sum
);
    localparam WP = WA + WB, LEVELS = $clog2(L), IN_DSP48 = MULTIPLIER == 1 || MULTIPLIER == 2;
    wire [L*WP-1:0] products;
    wire [WP+LEVELS-1:0] lanes;
    wire first_last;
    genvar i;
    generate
        for (i = 0; i < L; i = i + 1) begin : lane
            if (IN_DSP48) begin : slice
                dsp48_mac #(.WA(WA), .WB(WB), .SA(SA), .SB(SB), .A(WP), .E2(MULTIPLIER == 1)) multiplier (
                    .clk(clk), .enable(enable), .first(1'b1),
                    .a(a[i*WA+:WA]), .b(b[i*WB+:WB]), .sum(products[i*WP+:WP])
                );
            end else if (MULTIPLIER == 3) begin : block
                mult18_multiply #(.WA(WA), .WB(WB), .SA(SA), .SB(SB)) multiplier (
                    .clk(clk), .enable(enable), .a(a[i*WA+:WA]), .b(b[i*WB+:WB]), .product(products[i*WP+:WP])
                );
            end else begin : fabric
                reg  [WA-1:0] a_1;
                reg  [WB-1:0] b_1;
                wire [WP-1:0] exact;
                reg  [WP-1:0] product_2;
                multiply #(.WA(WA), .WB(WB), .SA(SA), .SB(SB)) multiplier (.a(a_1), .b(b_1), .product(exact));
                always @(posedge clk) if (enable) begin
                    a_1 <= a[i*WA+:WA];
                    b_1 <= b[i*WB+:WB];
                    product_2 <= exact;
                end
                assign products[i*WP+:WP] = product_2;
            end
        end
    endgenerate
    sum_tree #(.N(L), .W(WP), .S(SA || SB)) tree (.clk(clk), .enable(enable), .x(products), .sum(lanes));
    delay #(.D(2 + IN_DSP48 + LEVELS)) delayed (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate #(.W(WP + LEVELS), .S(SA || SB), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .x(lanes), .sum(sum)
    );
endmodule
