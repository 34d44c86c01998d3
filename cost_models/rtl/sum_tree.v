// The sum of N integers: a balanced tree of adders, a register behind each; one bit more on every level.
module sum_tree #(
    parameter N = 4, W = 8, S = 1, LEVELS = $clog2(N)
) (
    input  clk, enable,
    input  [N*W-1:0] x,
    output [W+LEVELS-1:0] sum
);
    localparam HALF = (N + 1) / 2, WIDER = W + 1;
    genvar i;
    generate
        if (N == 1) begin : leaf
            assign sum = x;
        end else begin : node
            reg  [HALF*WIDER-1:0] level;
            for (i = 0; i < HALF; i = i + 1) begin : pair
                wire [WIDER-1:0] left, next;
                extend #(.W(W), .S(S), .WIDER(WIDER)) wide (.x(x[2*i*W+:W]), .y(left));
                if (2*i + 1 < N) begin : two
                    wire [WIDER-1:0] right;
                    extend #(.W(W), .S(S), .WIDER(WIDER)) wide (.x(x[(2*i+1)*W+:W]), .y(right));
                    assign next = left + right;
                end else begin : one
                    assign next = left;
                end
                always @(posedge clk) if (enable) level[i*WIDER+:WIDER] <= next;
            end
            sum_tree #(.N(HALF), .W(WIDER), .S(S)) rest (.clk(clk), .enable(enable), .x(level), .sum(sum));
        end
    endgenerate
endmodule
