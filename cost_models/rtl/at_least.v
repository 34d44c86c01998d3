// x >= y for two integers, two's complement (S=1) or unsigned: two bits per position of a carry chain.
module at_least #(
    parameter A = 8, S = 1
) (
    input  [A-1:0] x, y,
    output result
);
    localparam PAIRS = (A + 1) / 2;
    // With the sign bit inverted, two's complement sorts as unsigned numbers do.
    wire [A-1:0] flip = {S != 0, {(A-1){1'b0}}};
    wire [2*PAIRS-1:0] u, v;
    wire [PAIRS-1:0] above, equal;
    extend #(.W(A), .S(0), .WIDER(2*PAIRS)) wide_x (.x(x ^ flip), .y(u));
    extend #(.W(A), .S(0), .WIDER(2*PAIRS)) wide_y (.x(y ^ flip), .y(v));
    genvar i;
    generate
        for (i = 0; i < PAIRS; i = i + 1) begin : pair
            assign above[i] = u[2*i+:2] > v[2*i+:2];
            assign equal[i] = u[2*i+:2] == v[2*i+:2];
        end
    endgenerate
    // A carry goes in at the bottom; a pair makes one where x is above y, and passes it on where they agree.
    wire [PAIRS+1:0] chain = {1'b0, above, 1'b1} + {1'b0, above ^ equal, 1'b1};
    assign result = chain[PAIRS+1];
endmodule
