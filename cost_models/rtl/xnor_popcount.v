// How many of L binary lanes agree, summed up: sum <= (first ? 0 : sum) + popcount(a ~^ b), in A bits. The dot product
// of numbers -1 and 1 is twice that minus the lanes. Three lanes are six inputs: one LUT for each bit of their count,
// and adders from there on. Latency 3 + clog2(ceil(L/3)).
module xnor_popcount #(
    parameter L = 64, A = 16
) (
    input  clk, enable, first,
    input  [L-1:0] a, b,
    output [A-1:0] sum
);
    localparam GROUPS = (L + 2) / 3, LEVELS = $clog2(GROUPS);
    reg  [L-1:0] a_1, b_1;
    reg  [2*GROUPS-1:0] counts_2;
    wire [3*GROUPS-1:0] equal;
    wire [LEVELS+1:0] lanes;
    wire first_last;
    extend #(.W(L), .S(0), .WIDER(3*GROUPS)) padded (.x(a_1 ~^ b_1), .y(equal));
    genvar i;
    generate
        for (i = 0; i < GROUPS; i = i + 1) begin : group
            wire x = equal[3*i], y = equal[3*i+1], z = equal[3*i+2];
            always @(posedge clk) if (enable) counts_2[2*i+:2] <= {x & y | x & z | y & z, x ^ y ^ z};
        end
    endgenerate
    always @(posedge clk) if (enable) begin
        a_1 <= a;
        b_1 <= b;
    end
    sum_tree #(.N(GROUPS), .W(2), .S(0)) tree (.clk(clk), .enable(enable), .x(counts_2), .sum(lanes));
    delay #(.D(2 + LEVELS)) delayed (.clk(clk), .enable(enable), .x(first), .y(first_last));
    accumulate #(.W(LEVELS + 2), .S(0), .A(A)) total (
        .clk(clk), .enable(enable), .first(first_last), .x(lanes), .sum(sum)
    );
endmodule
