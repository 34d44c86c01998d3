// Counts to D: `last` at the last.
module counter #(
    parameter D = 8, W = 3
) (
    input  clk, reset, step,
    output [W-1:0] y,
    output last
);
    generate
        if (D == 1) begin : one
            assign y = 0;
            assign last = 1'b1;
        end else begin : several
            cycle #(.D(D)) count (.clk(clk), .reset(reset), .enable(step), .y(y));
            assign last = y == D - 1;
        end
    endgenerate
endmodule
