// Bytes from a serial line: a start bit, 8 bits, the lowest first, a stop bit; DIVIDER clock cycles each.
// `valid` is 1 for one cycle.
module uart_receiver #(
    parameter DIVIDER = 25
) (
    input  clk, reset, line,
    output reg valid,
    output reg [7:0] data
);
    localparam W = $clog2(DIVIDER);
    reg  [2:0] seen;            // the line, brought to this clock
    reg  [3:0] place;           // 0: no byte is on its way; 1 the start bit, 2 to 9 bits, 10 the stop bit
    reg  [W-1:0] left;          // cycles to the middle of the bit at this place
    always @(posedge clk) begin
        seen <= {seen, line};
        valid <= 1'b0;
        if (reset) begin
            place <= 0;
            seen <= 3'b111;
        end else if (place == 0) begin
            left <= DIVIDER / 2 - 1;
            if (~seen[2]) place <= 1;
        end else if (left != 0) begin
            left <= left - 1'b1;
        end else begin
            left <= DIVIDER - 1;
            place <= place == 10 | (place == 1 & seen[2]) ? 0 : place + 1'b1;
            if (place == 10) valid <= seen[2];
            else if (place != 1) data <= {seen[2], data[7:1]};
        end
    end
endmodule
