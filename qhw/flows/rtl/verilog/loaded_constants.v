// The constants of a stream's words, in rounds of D words of W bits, which are loaded: they show one enabled edge behind
// their word.
module loaded_constants #(
    parameter D = 16, W = 8, STYLE = 1, WA = D > 1 ? $clog2(D) : 1
) (
    input  clk, reset, enable, x_valid, write,
    input  [WA-1:0] target,
    input  [W-1:0] x,
    output [W-1:0] y
);
    wire [WA-1:0] address;
    generate
        if (D == 1) begin : one
            assign address = 1'b0;
        end else begin : several
            cycle #(.D(D)) count (.clk(clk), .reset(reset), .enable(enable & x_valid), .y(address));
        end
    endgenerate
    loaded_memory #(.D(D), .W(W), .STYLE(STYLE)) words (
        .clk(clk), .read(enable), .write(write), .address(address), .target(target), .x(x), .y(y)
    );
endmodule
