// Counts steps in rounds of N: `last` is 1 while the N-th is awaited.
module counted #(
    parameter N = 16
) (
    input  clk, reset, step,
    output last
);
    generate
        if (N == 1) begin : always_last
            assign last = 1'b1;
        end else begin : counter
            wire [$clog2(N)-1:0] y;
            cycle #(.D(N)) count (.clk(clk), .reset(reset), .enable(step), .y(y));
            assign last = y == N - 1;
        end
    endgenerate
endmodule
