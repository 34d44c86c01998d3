// The constants of a stream's words, in rounds of D words of W bits: they show one enabled edge behind their word.
module constants #(
    parameter D = 16, W = 8, STYLE = 1, FILE = ""
) (
    input  clk, reset, enable, x_valid,
    output [W-1:0] y
);
    generate
        if (D == 1) begin : one
            rom #(.D(1), .W(W), .FILE(FILE)) words (.clk(clk), .read(enable), .address(1'b0), .y(y));
        end else begin : several
            wire [$clog2(D)-1:0] address;
            cycle #(.D(D)) count (.clk(clk), .reset(reset), .enable(enable & x_valid), .y(address));
            rom #(.D(D), .W(W), .STYLE(STYLE), .FILE(FILE)) words (
                .clk(clk), .read(enable), .address(address), .y(y)
            );
        end
    endgenerate
endmodule
