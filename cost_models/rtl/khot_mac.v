// Multiply-accumulate of an integer and a k-hot weight, without a multiplier: sum <= (first ? 0 : sum) + a * b.
// b is stored as its shifts (khot_product.v). Latency 3 + clog2(K).
module khot_mac #(
    parameter WA = 8, SA = 1, WB = 8, K = 2, CSD = 0, A = 24,
    parameter POSITIONS = CSD ? WB : WB - 1, WS = $clog2(POSITIONS + 1)
) (
    input  clk, enable, first,
    input  [WA-1:0] a,
    input  [K*WS+(CSD?K:1)-1:0] b,
    output [A-1:0] sum
);
    localparam WP = K == 1 ? WA + WB - 2 : WA + WB - 1;
    reg  [WA-1:0] a_1;
    reg  [K*WS+(CSD?K:1)-1:0] b_1;
    wire [WP-1:0] product;
    wire negative, first_last;
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
    end
    khot_product #(.W(WA), .S(SA), .WB(WB), .K(K), .CSD(CSD)) magnitude (
        .clk(clk), .enable(enable), .x(a_1), .weight(b_1), .product(product), .negative(negative)
    );
    delay #(.D(2 + $clog2(K))) delayed (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate_signed #(.W(WP), .S(SA), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .negative(negative), .x(product), .sum(sum)
    );
endmodule
