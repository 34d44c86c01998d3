// Multiply-accumulate of minifloats: sum <= (first ? 0 : sum) + a * b, exactly, in A bits of fixed point whose
// unit is the product of the smallest subnormals (a Kulisch accumulator). Latency 3 and the shifter's.
module minifloat_mac #(
    parameter EA = 4, MA = 3, EB = 4, MB = 3, A = 48
) (
    input  clk, enable, first,
    input  [EA+MA:0] a,
    input  [EB+MB:0] b,
    output [A-1:0] sum
);
    localparam WS = MA == 0 || MB == 0 ? MA + MB + 1 : MA + MB + 2;
    localparam SPAN = (1 << EA) + (1 << EB) - 4, WP = SPAN == 0 ? 1 : $clog2(SPAN + 1);
    localparam STAGES = (WP + 1) / 2;
    reg  [EA+MA:0] a_1;
    reg  [EB+MB:0] b_1;
    reg  negative_2;
    reg  [WS-1:0] significand_2;
    reg  [WP-1:0] places_2;
    wire negative, negative_last, first_last;
    wire [WS-1:0] significand;
    wire [WP-1:0] places;
    wire [WS+SPAN-1:0] magnitude;
    minifloat_product #(.EA(EA), .MA(MA), .EB(EB), .MB(MB)) product (
        .a(a_1), .b(b_1), .negative(negative), .significand(significand), .places(places)
    );
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
        negative_2 <= negative;
        significand_2 <= significand;
        places_2 <= places;
    end
    shift_left #(.W(WS), .S(0), .WP(WP), .WY(WS+SPAN)) shifter (
        .clk(clk), .enable(enable), .x(significand_2), .places(places_2), .y(magnitude)
    );
    delay #(.D(STAGES)) signs (.clk(clk), .enable(enable), .x(negative_2), .y(negative_last));
    delay #(.D(2 + STAGES)) firsts (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate_signed #(.W(WS+SPAN), .S(0), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .negative(negative_last), .x(magnitude), .sum(sum)
    );
endmodule
