// Multiply-accumulate of a minifloat and a k-hot weight, without a multiplier: sum <= (first ? 0 : sum) + a * b,
// exactly, in A bits of fixed point whose unit is a's smallest subnormal. The significand is multiplied first, while it
// is short. b is stored as its shifts (khot_product.v). Latency 4 + clog2(K).
module khot_minifloat_mac #(
    parameter EA = 4, MA = 3, WB = 8, K = 2, CSD = 0, A = 32,
    parameter POSITIONS = CSD ? WB : WB - 1, WS = $clog2(POSITIONS + 1)
) (
    input  clk, enable, first,
    input  [EA+MA:0] a,
    input  [K*WS+(CSD?K:1)-1:0] b,
    output [A-1:0] sum
);
    localparam WP = K == 1 ? MA + WB - 1 : MA + WB;     // bits of the significand times the magnitude of b
    localparam SPAN = (1 << EA) - 2, LEVELS = $clog2(K);
    reg  [EA+MA:0] a_1;
    reg  [K*WS+(CSD?K:1)-1:0] b_1;
    reg  negative_last;
    reg  [WP+SPAN-1:0] magnitude_last;
    wire negative_a, negative_b, negative, first_last;
    wire [MA:0] significand;
    wire [EA-1:0] places_a, places;
    wire [WP-1:0] product;
    wire [WP+SPAN-1:0] shifted;
    minifloat_unpack #(.E(EA), .M(MA)) unpack (
        .code(a_1), .negative(negative_a), .significand(significand), .places(places_a)
    );
    khot_product #(.W(MA + 1), .S(0), .WB(WB), .K(K), .CSD(CSD)) magnitude (
        .clk(clk), .enable(enable), .x(significand), .weight(b_1), .product(product), .negative(negative_b)
    );
    delay #(.W(EA), .D(1 + LEVELS)) delayed_places (.clk(clk), .enable(enable), .x(places_a), .y(places));
    delay #(.D(1 + LEVELS)) delayed_sign (.clk(clk), .enable(enable), .x(negative_a), .y(negative));
    shift_up_to #(.W(WP), .S(0), .PLACES(SPAN)) shifter (.x(product), .places(places), .y(shifted));
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
        negative_last <= negative ^ negative_b;
        magnitude_last <= shifted;
    end
    delay #(.D(3 + LEVELS)) delayed (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate_signed #(.W(WP+SPAN), .S(0), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .negative(negative_last), .x(magnitude_last), .sum(sum)
    );
endmodule
