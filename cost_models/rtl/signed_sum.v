// The sum of N integers modulo 2^W, those with a `minus` subtracted; never the first one. A balanced tree of adders, a
// register behind each. What is subtracted is inverted where it is added; its missing 1 is some adder's carry: there
// is one adder less than there are numbers, and the first number needs none. Latency clog2(N).
module signed_sum #(
    parameter N = 4, W = 8, SIGNED = 1,
    parameter [N-1:0] RAW = {N{1'b1}}       // not inverted yet
) (
    input  clk, enable,
    input  [N*W-1:0] x,
    input  [N-1:0] minus,
    output [W-1:0] sum
);
    localparam HALF = (N + 1) / 2;
    localparam [HALF-1:0] STILL_RAW = (N % 2 && RAW[N-1]) << (HALF - 1);
    genvar i;
    generate
        if (N == 1) begin : leaf
            assign sum = x;
        end else begin : node
            reg [HALF*W-1:0] level;
            reg [HALF-1:0] missing;
            for (i = 0; i < HALF; i = i + 1) begin : pair
                wire [W-1:0] left = x[2*i*W+:W];
                if (2*i + 1 == N) begin : one
                    always @(posedge clk) if (enable) begin
                        level[i*W+:W] <= left;
                        missing[i] <= minus[2*i];
                    end
                end else if (SIGNED) begin : two
                    wire [W-1:0] right = x[(2*i+1)*W+:W];
                    // The first pair takes in its only missing 1, every other pair one of two.
                    wire carry = minus[i == 0 ? 1 : 2*i];
                    wire [W-1:0] u = left ^ {W{RAW[2*i] && i > 0 ? minus[2*i] : 1'b0}};
                    wire [W-1:0] v = right ^ {W{RAW[2*i+1] ? minus[2*i+1] : 1'b0}};
                    wire [W:0] added = {u, 1'b1} + {v, carry};
                    always @(posedge clk) if (enable) begin
                        level[i*W+:W] <= added[W:1];
                        missing[i] <= i == 0 ? 1'b0 : minus[2*i+1];
                    end
                end else begin : plain
                    always @(posedge clk) if (enable) begin
                        level[i*W+:W] <= left + x[(2*i+1)*W+:W];
                        missing[i] <= 1'b0;
                    end
                end
            end
            signed_sum #(.N(HALF), .W(W), .SIGNED(SIGNED), .RAW(STILL_RAW)) rest (
                .clk(clk), .enable(enable), .x(level), .minus(missing), .sum(sum)
            );
        end
    endgenerate
endmodule
