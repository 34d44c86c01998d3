// Bytes onto a serial line: a start bit, 8 bits, the lowest first, a stop bit; DIVIDER clock cycles each.
module uart_transmitter #(
    parameter DIVIDER = 25
) (
    input  clk, reset, x_valid,
    input  [7:0] x,
    output x_ready, line
);
    localparam W = $clog2(DIVIDER);
    reg  [9:0] bits;
    reg  [3:0] count;           // bits that are not over yet
    reg  [W-1:0] left;
    assign x_ready = count == 0;
    assign line = count == 0 | bits[0];
    always @(posedge clk)
        if (reset) count <= 0;
        else if (count == 0) begin
            bits <= {1'b1, x, 1'b0};
            left <= DIVIDER - 1;
            if (x_valid) count <= 10;
        end else if (left != 0) left <= left - 1'b1;
        else begin
            bits <= {1'b1, bits[9:1]};
            left <= DIVIDER - 1;
            count <= count - 1'b1;
        end
endmodule
