// The largest of N integers: a balanced tree of comparisons, a register behind each. Latency 1 + clog2(N).
module max_pool #(
    parameter W = 8, N = 4, S = 1
) (
    input  clk, enable,
    input  [N*W-1:0] x,
    output [W-1:0] y
);
    reg [N*W-1:0] x_1;
    always @(posedge clk) if (enable) x_1 <= x;
    max_tree #(.N(N), .W(W), .S(S)) tree (.clk(clk), .enable(enable), .x(x_1), .y(y));
endmodule

module max_tree #(
    parameter N = 4, W = 8, S = 1
) (
    input  clk, enable,
    input  [N*W-1:0] x,
    output [W-1:0] y
);
    localparam HALF = (N + 1) / 2;
    genvar i;
    generate
        if (N == 1) begin : leaf
            assign y = x;
        end else begin : node
            reg [HALF*W-1:0] level;
            for (i = 0; i < HALF; i = i + 1) begin : pair
                wire [W-1:0] largest;
                if (2*i + 1 < N) begin : two
                    wire left;
                    at_least #(.A(W), .S(S)) compare (
                        .x(x[2*i*W+:W]), .y(x[(2*i+1)*W+:W]), .result(left)
                    );
                    assign largest = left ? x[2*i*W+:W] : x[(2*i+1)*W+:W];
                end else begin : one
                    assign largest = x[2*i*W+:W];
                end
                always @(posedge clk) if (enable) level[i*W+:W] <= largest;
            end
            max_tree #(.N(HALF), .W(W), .S(S)) rest (.clk(clk), .enable(enable), .x(level), .y(y));
        end
    endgenerate
endmodule
