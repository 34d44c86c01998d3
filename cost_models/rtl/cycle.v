// Counts 0, 1, ... D - 1, 0, ... and starts with 0.
module cycle #(
    parameter D = 16, W = $clog2(D)
) (
    input  clk, reset, enable,
    output reg [W-1:0] y
);
    initial y = 0;
    generate
        if (D == 1 << W) begin : power
            always @(posedge clk)
                if (reset) y <= 0;
                else if (enable) y <= y + 1'b1;
        end else begin : other
            always @(posedge clk)
                if (reset | (enable & (y == D - 1))) y <= 0;
                else if (enable) y <= y + 1'b1;
        end
    endgenerate
endmodule
