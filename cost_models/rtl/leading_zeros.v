// How many zeros are in front of the highest one of N bits; N where all of them are zero.
// Each bit of the count, the highest first, halves what is looked at, as thermometer_to_binary does.
module leading_zeros #(
    parameter N = 14, WY = $clog2(N + 1)
) (
    input  [N-1:0] x,
    output [WY-1:0] count
);
    localparam HALF = 1 << (WY - 1), BEHIND = N - HALF;
    generate
        if (N == 1) begin : leaf
            assign count = ~x;
        end else begin : node
            // A half that holds a one needs no look at its last bit. Ones behind the last bit end the count at N.
            wire none = ~|x[N-1:BEHIND];
            wire [HALF-2:0] half, behind;
            wire [WY-2:0] rest;
            if (BEHIND == 0) begin : nothing
                assign behind = {(HALF-1){1'b1}};
            end else if (BEHIND == HALF - 1) begin : whole
                assign behind = x[BEHIND-1:0];
            end else begin : part
                assign behind = {x[BEHIND-1:0], {(HALF-1-BEHIND){1'b1}}};
            end
            assign half = none ? behind : x[N-1-:HALF-1];
            leading_zeros #(.N(HALF-1)) lower (.x(half), .count(rest));
            assign count = {none, rest};
        end
    endgenerate
endmodule
