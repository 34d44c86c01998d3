// Multiply-accumulate of integers: sum <= (first ? 0 : sum) + a * b, in A bits.
// MULTIPLIER: 0 LUTs, 1 a DSP48E2, 2 a DSP48E1, 3 an ECP5 MULT18X18D. Latency 3.
module integer_mac #(
    parameter WA = 4, WB = 4, SA = 1, SB = 1, A = 16, MULTIPLIER = 0
) (
    input  clk, enable, first,
    input  [WA-1:0] a,
    input  [WB-1:0] b,
    output [A-1:0] sum
);
    generate
        if (MULTIPLIER == 1 || MULTIPLIER == 2) begin : slice
            dsp48_mac #(.WA(WA), .WB(WB), .SA(SA), .SB(SB), .A(A), .E2(MULTIPLIER == 1)) mac (
                .clk(clk), .enable(enable), .first(first), .a(a), .b(b), .sum(sum)
            );
        end else begin : fabric
            wire [WA+WB-1:0] product;
            wire first_2;
            if (MULTIPLIER == 3) begin : block
                mult18_multiply #(.WA(WA), .WB(WB), .SA(SA), .SB(SB)) multiplier (
                    .clk(clk), .enable(enable), .a(a), .b(b), .product(product)
                );
            end else begin : logic_
                reg  [WA-1:0] a_1;
                reg  [WB-1:0] b_1;
                wire [WA+WB-1:0] exact;
                reg  [WA+WB-1:0] product_2;
                multiply #(.WA(WA), .WB(WB), .SA(SA), .SB(SB)) multiplier (.a(a_1), .b(b_1), .product(exact));
                always @(posedge clk) if (enable) begin
                    a_1 <= a;
                    b_1 <= b;
                    product_2 <= exact;
                end
                assign product = product_2;
            end
            delay #(.D(2)) delayed (.clk(clk), .enable(enable), .x(first), .y(first_2));
            accumulate #(.W(WA+WB), .S(SA || SB), .A(A)) total (
                .clk(clk), .enable(enable), .first(first_2), .x(product), .sum(sum)
            );
        end
    endgenerate
endmodule
